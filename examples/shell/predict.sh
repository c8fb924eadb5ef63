#!/bin/sh
# Lets a served network predict the next bit of a sequence, with nothing but a command-line client of
# gRPC: `buf curl`, or grpcurl. Neither has the .proto file: the server describes its API (reflection).
#
#   examples/shell/predict.sh localhost:50051 1101101101
set -eu
address=${1:-localhost:50051}
bits=${2:-1101101101}
case $bits in *[!01]*)
    echo "$bits is no sequence of 0 and 1" >&2
    exit 2
    ;;
esac

if ! command -v buf >/dev/null && ! command -v grpcurl >/dev/null; then
    echo "this takes buf (pip install buf-bin) or grpcurl, and neither is in PATH" >&2
    exit 1
fi

call() { # METHOD JSON: prints the answer, JSON too
    if command -v buf >/dev/null; then
        buf curl --protocol grpc --http2-prior-knowledge --header "x-session-id: $session" \
            --data "$2" "http://$address/ntm.v1.NtmService/$1"
    else
        grpcurl -plaintext -H "x-session-id: $session" -d "$2" "$address" "ntm.v1.NtmService/$1"
    fi
}

# The client chooses the id of its session: then CreateSession can be sent again without harm, and a
# balancer finds the session's replica by the header x-session-id from the first call on.
session=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
call CreateSession "{\"model\": \"ngrams-ntm-lstm\", \"session_id\": \"$session\"}" >/dev/null

# A step takes one float32, little-endian: 1.0 is the bytes 00 00 80 3f. JSON has bytes as base64.
zero='\\0000\\0000\\0000\\0000' one='\\0000\\0000\\0200\\0077'
inputs=$(printf '%s' "$bits" | sed "s/1/x/g; s/0/$zero/g; s/x/$one/g")
inputs=$(printf '%b' "$inputs" | base64 | tr -d '\n')
reply=$(call Step "{\"chunk\": {\"session_id\": \"$session\", \"first_step\": 0, \"inputs\": \"$inputs\"}}")
call DeleteSession "{\"session_id\": \"$session\"}" >/dev/null

# The outputs are one float32 for each step; the last four bytes are of the last step.
outputs=$(printf '%s' "$reply" | tr -d ' \n' | sed 's/.*"outputs":"\([^"]*\)".*/\1/')
printf '%s' "$outputs" | base64 -d | tail -c 4 | od -An -tf4 |
    awk '{ printf "after %s, the next bit is 1 with a probability of %.2f\n", "'"$bits"'", $1 }'
