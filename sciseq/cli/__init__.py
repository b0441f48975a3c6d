"""The command line: ``sciseq forecast``, ``sequence``, ``methods``, ``datasets``.

Exit codes:

==== =====================================================================
code meaning
==== =====================================================================
0    done
1    a fault in sciseq or below it; ``sciseq --debug ...`` shows where
2    what was asked cannot be done: a wrong option, input or file, or a
     file that cannot be read or written
130  interrupted with Ctrl-C
141  the program that read the output has gone (as in ``| head``)
==== =====================================================================

Whatever the code other than 0, no output was left half-written: a file is complete or
as it was before. Errors and warnings are single lines on standard error.
"""

from sciseq.cli.app import app, main

__all__ = ["app", "main"]
