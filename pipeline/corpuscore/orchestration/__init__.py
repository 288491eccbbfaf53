"""The only package that imports Airflow: form, operator, trigger, hooks, retry policy and provider metadata.

It is installed rather than part of the DAG folder, since the triggerer cannot import a trigger from a DAG file.
"""
