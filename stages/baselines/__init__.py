"""Trains the methods to compare with, by the losses that their authors published."""
