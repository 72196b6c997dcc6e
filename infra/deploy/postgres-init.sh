#!/bin/sh
# Runs once in an empty database: the extension, the owner who migrates, and the login that serves and owns nothing.
# psql quotes the passwords itself; they are in no command line.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set database="$POSTGRES_DB" <<'SQL'
\getenv owner_password PENSTOCK_OWNER_PASSWORD
\getenv app_password PENSTOCK_APP_PASSWORD
CREATE EXTENSION IF NOT EXISTS vector;
CREATE ROLE penstock_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE penstock_app LOGIN NOINHERIT PASSWORD :'app_password';
ALTER DATABASE :"database" OWNER TO penstock_owner;
ALTER SCHEMA public OWNER TO penstock_owner;
SQL
