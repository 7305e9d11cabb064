"""A stand-in for both clouds: their documented contracts over real HTTP, in a process of its own.

Written from the providers' documents, not from the library it tests: it refuses what they refuse, counts what they
would bill, remembers every request, and fails in whatever way a test asks for. ``serving`` is the HTTP part, ``state``
what the two clouds know, ``gmi``, ``wavespeed`` and ``storage`` their endpoints, ``faults`` the ways to fail,
``client`` the handle of a test.
"""
