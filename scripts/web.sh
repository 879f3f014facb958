#!/usr/bin/env bash
# Builds the web page into web/dist, where anything it is made of is newer than the last build.
. "$(dirname "$0")/lib.sh"

[ -f web/package.json ] || { note "there is no web page in this tree"; exit 0; }
built=web/dist/index.html
if [ -f "$built" ] && [ -z "$(find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -newer "$built" -print -quit)" ]; then
	exit 0
fi
say "Building the web page"
cd web
exec npm run --silent build
