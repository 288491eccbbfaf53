"""What an Iceberg backend is of.

catalog.py   the catalog of a URL, and its errors
columns.py   stored types and schemas as Iceberg has them
commits.py   one commit of one table: files that go, files that come, and properties, where nobody else was quicker
journal.py   what a load has still to do to the rejects and to the ledger, once the scores are committed
"""
