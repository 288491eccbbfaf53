"""The whole product on one machine: Airflow, a Dask cluster, a folder as the object store, DuckDB.

    python -m infra.stack up|down|demo

All that it writes lies in one home, `.local/`. One process, the keeper, starts the services and ends them; it ends
them too when whoever asked for them is gone. All of them carry a mark in their environment, so that `down` finds
exactly the processes of this home, whatever happened to their parents.
"""
