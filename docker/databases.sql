-- Run once by the Postgres image on an empty volume; POSTGRES_DB makes the database of Prefect.
CREATE DATABASE mlflow;
