"""A control point on GUPnP that subscribes to every service of a gateway and
prints each value that it is told. It runs on a LAN host whose device is eth0,
until its input ends.

usage: events.py DEVICE-TYPE
"""

import sys

import gi

gi.require_version("GUPnP", "1.6")
from gi.repository import GLib, GObject, GUPnP

loop = GLib.MainLoop()
kept = []


def say(*words):
    print(*words, flush=True)


def walk(device):
    yield device
    for sub in device.list_devices():
        yield from walk(sub)


def told(service, variable, value, _):
    say("event", service.get_service_type().split(":")[3], variable, f"[{value}]")


def lost(service, error):
    say("lost", service.get_service_type(), error.message)


def described(service, result):
    names = [v.name for v in service.introspect_finish(result).list_state_variables() if v.send_events]
    for name in names:
        service.add_notify(name, GObject.TYPE_STRING, told, None)
    service.connect("subscription-lost", lost)
    service.set_subscribed(True)
    say("evented", service.get_service_type().split(":")[3], *names)


def found(point, device):
    say("found", device.get_device_type(), device.get_location())
    for d in walk(device):
        for service in d.list_services():
            kept.append(service)
            service.introspect_async(None, described)


def gone(point, device):
    say("gone", device.get_device_type())


point = GUPnP.ControlPoint.new(GUPnP.Context.new("eth0", 0), sys.argv[1])
point.connect("device-proxy-available", found)
point.connect("device-proxy-unavailable", gone)
point.set_active(True)
GLib.io_add_watch(GLib.IOChannel.unix_new(0), GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
loop.run()
for service in kept:
    service.set_subscribed(False)
