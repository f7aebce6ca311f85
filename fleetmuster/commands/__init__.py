"""One module per noun of `fm`; each has a table `VERBS` from verb to function.

Rule: a command takes a session and its parsed options and returns an exit code; it
asks the client, prints through the console, and raises `CommandError` for the rest.
Commands don't import each other, except for what is shown or waited for alike.
"""
