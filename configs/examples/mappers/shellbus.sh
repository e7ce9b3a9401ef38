#!/bin/sh
# A mapper in shell: each device is a file that holds a number. Needs mosquitto-clients; their settings
# (address, name, token) are in the folder that XDG_CONFIG_HOME names, put there by `edgebus node`.
[ "$1" = describe ] && { echo '{"protocol":"shellbus","api":1}'; exit; }
me=${EDGEBUS_NAME} own=edge/v1/dev/${EDGEBUS_NAME}
number() { printf '%s' "$1" | sed -n "s/.*\"$2\":{[^}]*\"value\":\([-0-9]*\).*/\1/p"; }

say() { # topic payload
    mosquitto_pub -q 1 -t "$1" -m "$2" $3
}
hello() { say "edge/v1/mapper/$me/hello" '{"protocol":"shellbus","api":1}' -r; }

trap 'trap - TERM; kill 0' TERM
exec 3<&0 # what runs in the background has no standard input of its own
(cat <&3 >/dev/null; kill 0) & # standard input ends: the parent is gone
seq=0
# The broker's store id is retained, so it comes at every connect: the sign to say again what is kept for
# the moment only (hello; a device's state follows its config, which comes again too).
mosquitto_sub -v -q 1 -t edge/v1/sys/broker/store -t "$own/+/+/config" -t "$own/+/+/want" | while read -r topic payload; do
    case $topic in */store) hello; continue ;; esac
    device=${topic#"$own"/} device=${device%/*}
    file=$(printf '%s' "$device" | tr / .)
    case $topic in
    */config) [ -n "$payload" ] || { rm -f "$file"; continue; } ;;
    */want) wanted=$(number "$payload" level) && [ -n "$wanted" ] && echo "$wanted" >"$file" ;;
    esac
    now=$(date -u +%Y-%m-%dT%H:%M:%S.000Z) seq=$((seq + 1))
    say "$own/$device/state" "{\"state\":\"online\",\"at\":\"$now\"}" -r
    [ -f "$file" ] && say "$own/$device/report" \
        "{\"seq\":$seq,\"at\":\"$now\",\"props\":{\"level\":{\"value\":$(cat "$file"),\"at\":\"$now\"}}}"
done
