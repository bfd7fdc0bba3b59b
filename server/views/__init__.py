"""Pictures and reports of runs, from plain data: pages that need no network, and PNG files.

Nothing here asks anybody for anything: who calls hands in what is to be shown.
"""
