"""What every test may ask for: real servers, started once a session."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # the machine may be busy with the processes of other tests
settings.load_profile("unhurried")

pytest_plugins = [
    "tests.servers.disks",
    "tests.servers.postgresql",
    "tests.servers.warehouses",
    "tests.servers.s3",
    "tests.servers.dask",
    "tests.servers.jobs",
    "tests.servers.airflow",
]
