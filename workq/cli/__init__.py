"""The command line: ``python -m workq``. It looks, and changes nothing. May import everything below it; nothing imports it.

main.py reads the arguments; info.py and ps.py each gather what one command shows, as plain data, and say it as text.
"""
