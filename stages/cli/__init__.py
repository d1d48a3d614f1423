"""The command `hypernst`: modules here import only click; each command imports its stage when it runs."""
