"""A person signs up at the restored forum, follows the mailed link, writes with an upload and sees it; old ones are there.

Run by `deploy drill` on its machine, as root; goes through the public doors (templates/app/doors.py).
"""

import secrets
import sys
import urllib.parse

from doors import COOKIES, DOMAIN, UNTIL, ask, call, caught, picture, rows

HOME = f"https://{DOMAIN}/"
MEDIA = "/media/"


def tell(path: str, body: object, good: tuple[int, ...] = (200,), **headers: str) -> dict:
    """As its own page does: with the token against forged requests, which changes with every login."""
    token = next((one.value for one in COOKIES if one.name == "csrftoken"), "")
    return call("POST", f"/api/{path}", body, good=good, X_CSRFToken=token, Referer=HOME, **headers)


def there(path: str) -> None:
    status, data = ask("GET", MEDIA + urllib.parse.quote(path), most=1)
    if status != 200 or not data:
        sys.exit(f"the upload {path}, which the database names, is not there: {status} {data!r}")


def signed_up(name: str, mail: str, password: str) -> str:
    """ "" once somebody new is in, else why nobody may come in like this."""
    [[who]] = rows("misago", "SELECT dry_value FROM misago_conf_setting WHERE setting = 'account_activation'")
    if who == "closed":
        return "the admin makes the accounts"
    wish = {"username": name, "email": mail, "password": password}
    agreements = rows("misago", "SELECT type, id FROM misago_legal_agreement WHERE is_active")
    wish |= {kind: int(number) for kind, number in agreements}
    made = tell("users/", wish, good=(200, 400))
    if set(made) == {"captcha"}:
        return "a captcha keeps programs out"
    if "activation" not in made:
        sys.exit(f"the sign-up did not end: {made}")
    if made["activation"] == "admin":
        return "the admin lets people in"
    if made["activation"] == "user":
        link = caught("mail", mail, rf"https://{DOMAIN}/activation/\d+/[^/\s]+/")
        status, page = ask("GET", link)
        if status != 200:
            sys.exit(f"the mailed link {link} answers {status}: {page[:300]!r}")
    tell("auth/", {"username": name, "password": password})
    return ""


def upload() -> tuple[int, str]:
    """Its number, and where it lies below the media."""
    border = secrets.token_hex(16)
    head = f'--{border}\r\nContent-Disposition: form-data; name="upload"; filename="drill.png"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + picture() + f"\r\n--{border}--\r\n".encode()
    number = int(tell("attachments/", body, Content_Type=f"multipart/form-data; boundary={border}")["id"])
    [[path]] = rows("misago", f"SELECT image FROM misago_threads_attachment WHERE id = {number}")
    return number, path


def thread(number: int) -> None:
    """Written in the first category that lets this person, and read again."""
    words = f"hello {secrets.token_hex(8)}"
    places = rows(
        "misago",
        "SELECT id FROM misago_categories_category WHERE level > 0 AND NOT is_closed ORDER BY tree_id, lft",
    )
    for [place] in places:
        wish = {"category": int(place), "title": "A drill", "post": words, "attachments": [number]}
        made = tell("threads/", wish, good=(200, 400, 403))
        if "url" in made:
            status, page = ask("GET", made["url"])
            if status != 200 or words.encode() not in page:
                sys.exit(f"{made['url']} does not show what was written: {status}")
            return
    sys.exit(f"nobody new may write in any of {len(places)} categories")


ask("GET", "/")
name = f"drill{secrets.token_hex(4)}"
shut = signed_up(name, f"{name}@elsewhere.test", secrets.token_urlsafe(16))
if not shut:
    mine, place = upload()
    thread(mine)
    there(place)

# Uploads that the restored database names, up to a hundred of the newest.
query = (
    "SELECT coalesce(nullif(image, ''), file) FROM misago_threads_attachment"
    f" WHERE extract(epoch FROM uploaded_on) < {UNTIL} AND coalesce(nullif(image, ''), file) <> ''"
    " ORDER BY uploaded_on DESC LIMIT 100"
)
uploads = rows("misago", query)
for [path] in uploads:
    there(path)
did = f"nobody signed up ({shut})" if shut else f"{name} signed up, wrote with an upload and saw it"
print(f"{did}; {len(uploads)} upload(s) are there")
