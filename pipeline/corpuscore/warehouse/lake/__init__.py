"""What warehouses of files are of: tables that are files of rows, each of one work id, and a state that names them.

state.py      a change, as the ledger sees it: what goes, what comes, what is confirmed
staging.py    parts -> files of rows, written before the change that makes them count
summary.py    the figures of a report, batch by batch
warehouse.py  the Warehouse on these: look, decide, stage, commit where nobody else was quicker
"""
