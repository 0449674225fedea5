#!/bin/bash
# tour.sh: a person signs up on the demo, as any Matrix client would do it, and says hello.
#
#   docs/tour.sh [PROVIDER]      after: bin/deploy up --provider local --yes
#
# It goes through the public doors only: HTTPS to the names of the service. Mail and SMS are read with
# `deploy inbox`, which works where the inventory says `catch: true`. The environment variable PROJECT names
# another project folder than this checkout. Needs curl and python3.
set -euo pipefail

provider=${1:-local}
checkout=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
project=${PROJECT:-$checkout}
ca=$project/.deploy/$provider/ca.crt

deploy() { "$checkout/bin/deploy" --project "$project" "$@"; }
say() { printf '\n== %s\n' "$*"; }

# get KEY...: a value out of the JSON on standard input, such as: get data urls 0
get() {
    python3 -c '
import functools, json, sys
step = lambda value, key: value[int(key)] if isinstance(value, list) else value[key]
print(functools.reduce(step, sys.argv[1:], json.load(sys.stdin)))' "$@"
}

# call METHOD PATH-OR-URL [JSON]: what a client sends. --resolve stands for the line in /etc/hosts.
call() {
    local url=$2
    case $url in https://*) ;; *) url=https://$domain$url ;; esac
    curl --silent --show-error --cacert "$ca" --resolve "$domain:443:$address" --request "$1" "$url" \
        ${token:+--header "Authorization: Bearer $token"} ${3:+--json "$3"}
}

say "Where is it?"
status=$(deploy status --provider "$provider" --json | tail -n 1)
domain=$(get data urls 0 <<<"$status" | cut -d/ -f3)
address=$(get data machines 0 address <<<"$status")
echo "$domain at $address"

random=$(python3 -c 'import secrets; print(secrets.token_hex(4))')
name=reader-$random
password=$(python3 -c 'import secrets; print(secrets.token_urlsafe(12))')
mail=$name@elsewhere.test
# Numbers that are kept for films, so nobody's (Ofcom).
number=07700900$(python3 -c 'import random; print(f"{random.randrange(1000):03d}")')
secret=$random$random
client=/_matrix/client/v3

say "Ask for an account: the server names what it wants to be proven"
wish="\"username\": \"$name\", \"password\": \"$password\""
answer=$(call POST $client/register "{$wish}")
session=$(get session <<<"$answer")
echo "stages: $(get flows 0 stages <<<"$answer")"

say "Ask for the mailed link and for the SMS code"
proof="\"client_secret\": \"$secret\", \"send_attempt\": 1"
mail_sid=$(call POST $client/register/email/requestToken "{$proof, \"email\": \"$mail\"}" | get sid)
answer=$(call POST $client/register/msisdn/requestToken "{$proof, \"country\": \"GB\", \"phone_number\": \"$number\"}")
sms_sid=$(get sid <<<"$answer")
submit=$(get submit_url <<<"$answer")
echo "mail to $mail, SMS to $number"

say "Read the SMS, enter the code"
sms=$(deploy inbox --provider "$provider" --sms --to "${number#0}" --last 1 --wait 30)
echo "$sms"
code=$(grep -oE '\b[0-9]{6}\b' <<<"$sms" | tail -n 1)
call POST "$submit" "{\"sid\": \"$sms_sid\", \"client_secret\": \"$secret\", \"token\": \"$code\"}"
echo

say "Read the mail, open the link"
mail=$(deploy inbox --provider "$provider" --mail --to "$mail" --last 1 --wait 30)
echo "$mail"
link=$(grep -oE 'https://[^ >]+submit_token[^ >]*' <<<"$mail" | head -n 1)
call GET "$link" | grep -o '<title>.*</title>'

say "Hand in both proofs"
for pair in "m.login.email.identity $mail_sid" "m.login.msisdn $sms_sid"; do
    creds="{\"sid\": \"${pair#* }\", \"client_secret\": \"$secret\"}"
    auth="{\"type\": \"${pair% *}\", \"session\": \"$session\", \"threepid_creds\": $creds}"
    answer=$(call POST $client/register "{$wish, \"auth\": $auth}")
done
echo "signed up as $(get user_id <<<"$answer")"

say "Log in, say something, read it back"
user="{\"type\": \"m.id.user\", \"user\": \"$name\"}"
login="{\"type\": \"m.login.password\", \"identifier\": $user, \"password\": \"$password\"}"
token=$(call POST $client/login "$login" | get access_token)
room=$(call POST $client/createRoom '{}' | get room_id)
path=$client/rooms/$(python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$room")
call PUT "$path/send/m.room.message/1" '{"msgtype": "m.text", "body": "hello"}' >/dev/null
said=$(call GET "$path/messages?dir=b&limit=1" | get chunk 0 content body)
echo "$name said: $said"
[ "$said" = hello ]
