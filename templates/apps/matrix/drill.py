"""A person signs up at the restored service, says something and reads it back, and looks at an old picture.

Run by `deploy drill` on its machine, as root; goes through the public doors (templates/app/doors.py).
"""

import secrets
import sys
import urllib.parse

from doors import DOMAIN, UNTIL, ask, call, caught, rows

CLIENT = "/_matrix/client/v3"

name = f"drill-{secrets.token_hex(4)}"
password, secret = secrets.token_urlsafe(12), secrets.token_hex(16)
mail, number = f"{name}@elsewhere.test", f"7700900{secrets.randbelow(1000):03d}"
wish = {"username": name, "password": password}
session = call("POST", f"{CLIENT}/register", wish, good=(401,))["session"]
proof = {"client_secret": secret, "send_attempt": 1}
mail_sid = call("POST", f"{CLIENT}/register/email/requestToken", {**proof, "email": mail})["sid"]
texted = call(
    "POST", f"{CLIENT}/register/msisdn/requestToken", {**proof, "country": "GB", "phone_number": f"0{number}"}
)
code = caught("sms", number, r"\b[0-9]{6}\b")
call("POST", texted["submit_url"], {"sid": texted["sid"], "client_secret": secret, "token": code})
call("GET", caught("mail", mail, r"https://[^ >\s\"]+submit_token[^ >\s\"]*"))
for kind, sid in (("m.login.email.identity", mail_sid), ("m.login.msisdn", texted["sid"])):
    auth = {"type": kind, "session": session, "threepid_creds": {"sid": sid, "client_secret": secret}}
    answer = call("POST", f"{CLIENT}/register", {**wish, "auth": auth}, good=(200, 401))
if "user_id" not in answer:
    sys.exit(f"the sign-up did not end: {answer}")
login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password}
token = call("POST", f"{CLIENT}/login", login)["access_token"]
room = urllib.parse.quote(call("POST", f"{CLIENT}/createRoom", {}, token)["room_id"])
call("PUT", f"{CLIENT}/rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "hello"}, token)
said = call("GET", f"{CLIENT}/rooms/{room}/messages?dir=b&limit=1", None, token)["chunk"][0]["content"][
    "body"
]
if said != "hello":
    sys.exit(f"said hello, read {said!r}")

# Every picture that the restored database names is asked for, up to a hundred of the newest.
query = (
    "SELECT media_id FROM local_media_repository WHERE quarantined_by IS NULL"
    f" AND created_ts < {UNTIL} * 1000::bigint ORDER BY created_ts DESC LIMIT 100"
)
uploads = rows("synapse", query)
for (media,) in uploads:
    path = f"/_matrix/client/v1/media/download/{DOMAIN}/{urllib.parse.quote(media)}"
    status, data = ask("GET", path, most=1, Authorization=f"Bearer {token}")
    if status != 200:
        sys.exit(f"the upload {media}, which the database names, is not there: {status} {data[:300]!r}")
    if not data:
        sys.exit(f"the upload {media} is empty")
print(f"{name} signed up and said hello; {len(uploads)} upload(s) are there")
