"""The studio: a page in the browser, served on the own machine, over the facade of `stages/apply/`."""
