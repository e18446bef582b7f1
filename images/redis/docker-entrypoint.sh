#!/bin/sh
# As the official image's: options or a .conf file alone mean redis-server, and the server answers other hosts.
set -e

if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
	set -- redis-server "$@"
fi

if [ "$1" = redis-server ]; then
	shift
	conf=
	case "${1:-}" in
		-* | "") ;;
		*) conf=$1; shift ;;
	esac
	# Later options win over these. The dash before :: lets a machine without IPv6 go on.
	set -- redis-server $conf --protected-mode no --bind 0.0.0.0 -:: "$@"
fi

exec "$@"
