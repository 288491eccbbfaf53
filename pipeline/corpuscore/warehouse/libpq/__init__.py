"""PostgreSQL's client library, as the drivers on it show it: addresses, refusals, and sessions that never hang."""
