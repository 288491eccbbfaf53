"""What every test may ask for: real servers, started once a session."""

pytest_plugins = [
    "tests.servers.disks",
    "tests.servers.postgresql",
    "tests.servers.warehouses",
    "tests.servers.s3",
    "tests.servers.dask",
    "tests.servers.jobs",
    "tests.servers.airflow",
]
