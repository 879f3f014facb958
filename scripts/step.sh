#!/usr/bin/env bash
# Runs one step of a longer job with a heading, and says how long it took.
# Usage: scripts/step.sh "what it is" command...
set -uo pipefail
title=$1
shift
printf '\033[1m==> %s\033[0m\n' "$title"
start=$SECONDS
"$@"
status=$?
if [ $status = 0 ]; then
	printf '    %s: done in %d s\n' "$title" $((SECONDS - start))
else
	printf '    %s: FAILED after %d s (exit %d): %s\n' "$title" $((SECONDS - start)) $status "$*" >&2
fi
exit $status
