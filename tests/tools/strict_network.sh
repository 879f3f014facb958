#!/bin/sh
# Two network namespaces and the link between them, behind a firewall as companies have it.
#
#   strict_network.sh up NAME        makes NAME-s (203.0.113.1, 2001:db8::1) and NAME-c (203.0.113.2, 2001:db8::2), joined
#   strict_network.sh block NAME ... lets NAME-c reach these TCP ports and nothing else; none: everything but UDP
#   strict_network.sh translate NAME gives NAME-s the address 203.0.113.3 too, which NAME-c reaches as 198.51.100.8 alone
#   strict_network.sh only6 NAME     leaves NAME-c nothing but IPv6
#   strict_network.sh far NAME DEV   makes NAME-f (198.51.100.2), which reaches NAME-s as 203.0.113.1 by this device alone;
#                                    run it again when the device is there in both
#   strict_network.sh down NAME      ends what runs in them and removes them
#
# The addresses look public: WebRTC clients take no media on ports 80 and 443 from private ones.
#
# Needs root, ip (iproute2) and nft (nftables).
set -eu

command=$1 name=$2
shift 2

case $command in
up)
	for side in s c; do
		ip netns add "$name-$side"
		ip -n "$name-$side" link set lo up
	done
	ip -n "$name-s" link add to-c type veth peer name to-s netns "$name-c"
	# nodad, accept_dad: IPv6 addresses can otherwise be used a second later only, and Chromium then calls the network
	# changed and ends its requests.
	for end in s:to-c:1 c:to-s:2; do
		side=${end%%:*} link=${end#*:} number=${end##*:}
		link=${link%:*}
		ip netns exec "$name-$side" sh -c "echo 0 >/proc/sys/net/ipv6/conf/$link/accept_dad"
		ip -n "$name-$side" address add "203.0.113.$number/24" dev "$link"
		ip -n "$name-$side" address add "2001:db8::$number/64" dev "$link" nodad
		ip -n "$name-$side" link set "$link" up
	done
	;;
block)
	{
		echo 'table inet strict {'
		echo ' chain out { type filter hook output priority 0; oif "lo" accept; meta l4proto udp drop;'
		if [ $# -gt 0 ]; then
			ports=$(echo "$@" | tr ' ' ,)
			echo "  meta l4proto tcp tcp dport != { $ports } drop;"
		fi
		echo ' }'
		echo ' chain in { type filter hook input priority 0; iif != "lo" meta l4proto udp drop; }'
		echo '}'
	} | ip netns exec "$name-c" nft -f -
	;;
translate)
	ip -n "$name-s" address add 203.0.113.3/24 dev to-c
	ip -n "$name-c" route add 198.51.100.0/24 dev to-s
	ip netns exec "$name-c" nft -f - <<-'END'
		table inet translation {
		 chain out { type nat hook output priority -100; ip daddr 198.51.100.8 dnat ip to 203.0.113.3; }
		 chain real { type filter hook output priority -200; ip daddr 203.0.113.0/24 drop; meta nfproto ipv6 drop; }
		}
	END
	;;
only6)
	ip -n "$name-c" address del 203.0.113.2/24 dev to-s
	;;
far)
	device=$1
	if ! [ -e "/run/netns/$name-f" ]; then
		ip netns add "$name-f"
		ip -n "$name-f" link set lo up
		exit
	fi
	ip -n "$name-s" address add 203.0.113.1 peer 198.51.100.2 dev "$device"
	ip -n "$name-f" address add 198.51.100.2 peer 203.0.113.1 dev "$device"
	for side in s f; do ip -n "$name-$side" link set "$device" mtu 1500 txqueuelen 2000 up; done
	;;
down)
	for side in s c f; do
		for process in $(ip netns pids "$name-$side" 2>/dev/null); do kill -9 "$process" 2>/dev/null || true; done
		ip netns delete "$name-$side" 2>/dev/null || true
	done
	;;
*)
	echo "strict_network.sh: unknown command $command" >&2
	exit 2
	;;
esac
