"""A person signs up at the restored network, confirms the mail, writes with a picture and sees it, and looks at an old one.

Run by `deploy drill` on its machine, as root; goes through the public doors (templates/app/doors.py).
"""

import base64
import datetime
import pathlib
import secrets
import sys
import time
import urllib.parse

from doors import DOMAIN, UNTIL, ask, call, caught, picture, rows

# Seconds until the AppView shows what the PDS took.
SHOWS = 60


def xrpc(method: str, body: object = None, token: str = "", **headers: str) -> dict:
    return call("POST", f"/xrpc/{method}", body, token, **headers)


settings = dict(
    line.split("=", 1)
    for line in pathlib.Path("/etc/deploy/apps/bluesky/pds.env").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
admin = base64.b64encode(f"admin:{settings['PDS_ADMIN_PASSWORD']}".encode()).decode()
invite = xrpc("com.atproto.server.createInviteCode", {"useCount": 1}, Authorization=f"Basic {admin}")["code"]
name = f"drill-{secrets.token_hex(4)}"
mail = f"{name}@elsewhere.test"
wish = {
    "handle": f"{name}.{DOMAIN}",
    "email": mail,
    "password": secrets.token_urlsafe(16),
    "inviteCode": invite,
}
account = xrpc("com.atproto.server.createAccount", wish)
did, token = account["did"], account["accessJwt"]
xrpc("com.atproto.server.requestEmailConfirmation", None, token)
code = caught("mail", mail, r"\b[A-Z2-7]{5}-[A-Z2-7]{5}\b")
xrpc("com.atproto.server.confirmEmail", {"email": mail, "token": code}, token)

blob = xrpc("com.atproto.repo.uploadBlob", picture(), token, Content_Type="image/png")["blob"]
record = {
    "$type": "app.bsky.feed.post",
    "text": "hello",
    "createdAt": datetime.datetime.now(datetime.UTC).isoformat(),
    "embed": {"$type": "app.bsky.embed.images", "images": [{"alt": "a picture", "image": blob}]},
}
post = {"repo": did, "collection": "app.bsky.feed.post", "record": record}
uri = xrpc("com.atproto.repo.createRecord", post, token)["uri"]
feed = f"/xrpc/app.bsky.feed.getAuthorFeed?{urllib.parse.urlencode({'actor': did})}"
deadline = time.monotonic() + SHOWS
while uri not in [item["post"]["uri"] for item in call("GET", feed, token=token)["feed"]]:
    if time.monotonic() > deadline:
        sys.exit(f"the AppView does not show {uri} within {SHOWS} s")
    time.sleep(0.5)

# Pictures that the restored database names, up to a hundred of the newest.
query = (
    'SELECT DISTINCT split_part(image."postUri", \'/\', 3), image."imageCid", post."indexedAt"'
    ' FROM post_embed_image image JOIN post ON post.uri = image."postUri"'
    f' WHERE extract(epoch FROM post."indexedAt"::timestamptz) < {UNTIL} ORDER BY 3 DESC LIMIT 100'
)
pictures = rows("bsky", query)
for owner, cid, _ in pictures:
    path = f"/xrpc/com.atproto.sync.getBlob?{urllib.parse.urlencode({'did': owner, 'cid': cid})}"
    status, data = ask("GET", path, most=1)
    if status != 200 or not data:
        sys.exit(f"the picture {cid} of {owner}, which the database names, is not there: {status} {data!r}")
print(f"{name} signed up, wrote with a picture and saw it; {len(pictures)} picture(s) are there")
