"""A BitTorrent session of libtorrent on a LAN host, without torrents: it asks the
router for the ports that it listens on, and says what it is told. Its input adds
and deletes mappings; when that ends, the session ends.

usage: torrent.py SETTING=VALUE ...
input: add PROTOCOL EXTERNAL INTERNAL
       delete INDEX
"""

import os
import select
import sys

import libtorrent

quiet = {
    "alert_mask": libtorrent.alert.category_t.port_mapping_notification
    | libtorrent.alert.category_t.port_mapping_log_notification
    | libtorrent.alert.category_t.error_notification,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
}


def say(*words):
    print(*words, flush=True)


def setting(text):
    name, value = text.split("=", 1)
    return name, {"yes": True, "no": False}.get(value, value)


def tell(alert):
    if isinstance(alert, libtorrent.portmap_alert):
        say("mapped", alert.mapping, alert.map_transport, alert.map_protocol, alert.external_port, alert.message())
    elif isinstance(alert, libtorrent.portmap_error_alert):
        say("refused", alert.mapping, alert.map_transport, alert.error.message())
    else:
        say(alert.what(), alert.message())


def obey(verb, *args):
    if verb == "add":
        protocol = getattr(libtorrent.portmap_protocol, args[0])
        try:
            session.add_port_mapping(protocol, int(args[1]), int(args[2]))
        except TypeError:  # it has asked; Python can't have what it returns
            pass
    else:
        session.delete_port_mapping(int(args[0]))


news, wake = os.pipe()
session = libtorrent.session(dict(quiet, **dict(map(setting, sys.argv[1:]))))
session.set_alert_notify(lambda: os.write(wake, b"."))
while True:
    ready, _, _ = select.select([news, sys.stdin], [], [])
    if news in ready:
        os.read(news, 4096)
        for alert in session.pop_alerts():
            tell(alert)
    if sys.stdin in ready:
        line = sys.stdin.readline()
        if not line:
            break
        obey(*line.split())
del session  # which waits until it has ended
