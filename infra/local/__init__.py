"""What runs when you have nothing: PostgreSQL with pgvector and Valkey, from wheels, under one folder.

Only `up`, `demo` and the tests start anything here (docs/decisions/0003-embedded-servers.md).

stack         both servers, started and stopped by one owner process
down          stops and removes what an owner, living or dead, has started
guard         a small process that stops the servers when their owner dies
postgres      initdb, start, roles, stop
cluster.sql   the logins and the database that every start makes sure of
valkey        start, wait, stop
servers       where the servers are: for other processes, in `.penstock/servers.json`
versions      what the running servers are: for `penstock doctor`
environment   an environment in which children meet these servers and no others
folder        `.penstock` and the few files in it
lock          one owner at a time
processes     finding and ending servers by the name that we gave them; ports
binaries      where the wheels keep the servers
privilege     as root: a user, an installation and a home for PostgreSQL
model/        the local model server
"""
