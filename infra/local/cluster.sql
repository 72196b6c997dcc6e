-- What every start makes sure of, as the superuser of this private server: two logins, one database, one extension.
-- Run by psql with the passwords in its environment; each statement may find its work already done.
\set ON_ERROR_STOP on
\getenv owner_password PENSTOCK_OWNER_PASSWORD
\getenv app_password PENSTOCK_APP_PASSWORD
SET client_min_messages = warning;

-- penstock_owner owns the database and, through its migrations, makes the serving roles: hence CREATEROLE.
SELECT 'CREATE ROLE penstock_owner' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'penstock_owner') \gexec
ALTER ROLE penstock_owner LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'owner_password';

-- penstock_app is what processes log in as; it owns nothing.
SELECT 'CREATE ROLE penstock_app' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'penstock_app') \gexec
ALTER ROLE penstock_app LOGIN NOCREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'app_password';

SELECT 'CREATE DATABASE penstock OWNER penstock_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'penstock') \gexec

-- In the template too, so that a database made for a test has it from the start.
\connect template1
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS vector;
ALTER EXTENSION vector UPDATE;

\connect penstock
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS vector;
ALTER EXTENSION vector UPDATE;

SELECT current_setting('server_version');
