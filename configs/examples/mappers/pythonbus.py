#!/usr/bin/env python3
"""A mapper in 40 lines: devices on Modbus TCP, one register a property. Needs paho-mqtt and pymodbus.

Drop it into mappers.d/ (without `.py` in its name, if you like: the file's name is the mapper's).
"""
import datetime, json, sys, threading, time
import paho.mqtt.client as mqtt
from pymodbus.client import ModbusTcpClient

if sys.argv[1:] == ["describe"]:
    print(json.dumps({"protocol": "pythonbus", "api": 1}))
    sys.exit()
me = json.loads(sys.stdin.readline())  # who we are and where the bus is
threading.Thread(target=lambda: (sys.stdin.read(), bus.disconnect()), daemon=True).start()  # parent gone: end
devices, done, seq = {}, {}, 0
own = f"edge/v1/dev/{me['name']}"

def on_connect(client, *_):
    client.publish(f"edge/v1/mapper/{me['name']}/hello", json.dumps({"protocol": "pythonbus", "api": 1}), 1, True)
    client.subscribe([(f"{own}/+/+/config", 1), (f"{own}/+/+/want", 1)])

def on_message(client, _, message):
    *_, ns, name, leaf = message.topic.split("/")
    devices.setdefault((ns, name), {})[leaf] = json.loads(message.payload) if message.payload else None

def serve(ns, name, config, want):
    global seq
    line = ModbusTcpClient("127.0.0.1", port=config["protocol"]["port"], timeout=1)
    props, at = {}, datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for p in config["properties"]:
        address, wish = p["visitor"]["offset"], (want or {"props": {}})["props"].get(p["name"])
        if wish and done.get((ns, name, p["name"])) != wish["gen"]:  # one write for each generation
            if line.read_holding_registers(address).registers[0] != wish["value"]:
                line.write_register(address, wish["value"])
            done[ns, name, p["name"]] = wish["gen"]
        props[p["name"]] = {"value": line.read_holding_registers(address).registers[0], "at": at}
    line.close()
    seq += 1
    bus.publish(f"{own}/{ns}/{name}/state", json.dumps({"state": "online", "at": at}), 1, True)
    bus.publish(f"{own}/{ns}/{name}/report", json.dumps({"seq": seq, "at": at, "props": props}), 1)

bus = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, me["name"], protocol=mqtt.MQTTv5)
bus.username_pw_set(me["name"], me["token"])
bus.on_connect, bus.on_message = on_connect, on_message
bus.connect(*me["tcp"].rsplit(":", 1)[:1], int(me["tcp"].rsplit(":", 1)[1]))
bus.loop_start()
while bus._thread.is_alive():
    for (ns, name), d in list(devices.items()):
        if d.get("config"):
            serve(ns, name, d["config"], d.get("want"))
    time.sleep(0.5)
