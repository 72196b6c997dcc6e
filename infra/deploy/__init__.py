"""What runs Penstock on machines of its own.

Dockerfile        calls build.sh and entrypoint.sh, and nothing else
build.sh          installs the locked packages and Penstock into a folder, without the embedded servers
entrypoint.sh     runs `penstock` with the arguments it gets
postgres-init.sh  makes the owner, the serving login and the extension in an empty database
probe             a health check that needs no curl
"""
