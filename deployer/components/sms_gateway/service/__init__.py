"""The HTTP service in front of Kannel: speaks Twilio's and OpenMarket's APIs, keeps messages on disk.

Runs on the machine as `python3 -m sms_gateway` with Debian's packages; the toolkit never imports it.
"""
