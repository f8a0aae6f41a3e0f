"""Hostile, broken and odd inputs: a table *input, what must happen*, tried under limits.

``make torture`` tries all of it and prints the table. The normal tests try the bounded rows
(:mod:`tests.hostile.test_hostile`). ``python -m tests.hostile PART --only TEXT`` tries a few.

**To add a row**: append a :class:`~tests.hostile.row.Row` to ``ROWS`` of the module of its part,
or write a module with ``ROWS`` and name it in :data:`tests.hostile.parts.PARTS`. A row has

- ``name``: the input in a few words, unique in its part;
- ``make(folder)``: writes the input into an empty folder and returns what to hand over (a path);
- ``must``: what has to happen: ``refused("regular expression of the sentence")``, ``read()`` for
  what is fine, ``either("regular expression")`` for a refusal or a result;
- ``run(given)``: what is done with it, :func:`~tests.hostile.row.check` (``densescope check``)
  unless the row says otherwise. ``command(*words)`` runs a verb of the command in this process and
  keeps its exit code and all that it prints; any Python function will do, an error of
  ``DensescopeError`` is a refusal, and the ``str`` that it returns counts as printed. It raises
  :class:`~tests.hostile.row.Lost` where a record or a result was lost or doubled;
- ``bounded=False``: tried by ``make torture`` only, for what takes more than half a second;
- ``allows``: audit events that are no fault here, such as ``("subprocess.Popen",)``.

Whatever a row says, it must not run code (a file :func:`~tests.hostile.row.sentinel` that the
payload writes, a process, a shell or a connection that is opened, a file that is written outside
the folder), not take more than 10 s or 1 GB above its start, not end with a traceback or with an
"unexpected" error, and not print control characters or lines without end.

Every input is made and tried in a forked process of its own. The parent has loaded all libraries,
so a row costs a tenth of a second.
"""
