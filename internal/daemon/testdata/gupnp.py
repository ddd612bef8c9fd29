"""A control point on GUPnP, run on a LAN host whose device is eth0: it finds
the gateway, reads all its documents, calls actions, and prints what it saw.

usage: gupnp.py OWN-ADDRESS
"""

import sys

import gi

gi.require_version("GUPnP", "1.6")
from gi.repository import GLib, GUPnP

loop = GLib.MainLoop()


def say(*words):
    print(*words, flush=True)


def call(service, name, arguments=(), results=()):
    action = GUPnP.ServiceProxyAction.new_from_list(name, ["New" + a for a, _ in arguments], [v for _, v in arguments])
    try:
        service.call_action(action, None)
        _, values = action.get_result_list(["New" + r for r in results], [str] * len(results))
    except GLib.Error as e:
        return [f"error {e.code}"]
    return values


def walk(device):
    yield device
    for sub in device.list_devices():
        yield from walk(sub)


def described(service, result):
    i = service.introspect_finish(result)
    kind = service.get_service_type()
    say("service", kind, len(i.list_actions()), "actions", len(i.list_state_variables()), "variables")
    if "WANIPConnection" in kind:
        use(service)
    describe_next()


def describe_next():
    if services:
        services.pop(0).introspect_async(None, described)
    else:
        loop.quit()


def use(service):
    key = [("RemoteHost", ""), ("ExternalPort", 18080), ("Protocol", "TCP")]
    target = [("InternalPort", 8080), ("InternalClient", sys.argv[1]), ("Enabled", True),
              ("PortMappingDescription", "GUPnP <&>"), ("LeaseDuration", 60)]
    say("address", *call(service, "GetExternalIPAddress", (), ["ExternalIPAddress"]))
    say("add", *call(service, "AddPortMapping", key + target))
    say("entry", *call(service, "GetSpecificPortMappingEntry", key, ["InternalClient", "PortMappingDescription"]))
    say("delete", *call(service, "DeletePortMapping", key))
    say("delete again", *call(service, "DeletePortMapping", key))


def found(point, device):
    for d in walk(device):
        say("device", d.get_device_type())
        services.extend(d.list_services())
    describe_next()


services = []
point = GUPnP.ControlPoint.new(GUPnP.Context.new("eth0", 0), "urn:schemas-upnp-org:device:InternetGatewayDevice:1")
point.connect("device-proxy-available", found)
point.set_active(True)
GLib.timeout_add_seconds(10, loop.quit)
loop.run()
