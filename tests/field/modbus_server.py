"""A Modbus device for the tests, served by pymodbus.

    modbus_server.py tcp PORT          (0 = any free port)
    modbus_server.py serial PATH BAUD

The first line on standard output is {"port": N}. Then each line on standard input is a command, answered
by one JSON line: `get ADDRESS`, `set ADDRESS VALUE`, `writes` (every write so far: [address, value]),
`reads` (how many questions), `mute on|off` (answers exceptions). Ends with its standard input.
"""

import asyncio
import json
import sys

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

SIZE = 2000


class Device:
    def __init__(self):
        self.cells = [0] * SIZE
        self.writes = []
        self.reads = 0
        self.mute = False

    async def action(self, function_code, start_address, address, count, current, values):
        if self.mute:
            return ExcCodes.DEVICE_FAILURE
        if values is None:
            self.reads += 1
            for i in range(count):
                current[address - start_address + i] = self.cells[address + i]
        else:
            for i, value in enumerate(values):
                self.cells[address + i] = int(value)
                self.writes.append([address + i, int(value)])
        return None


def obey(device, line):
    match line.split():
        case ["get", address]:
            return device.cells[int(address)]
        case ["set", address, value]:
            device.cells[int(address)] = int(value)
            return True
        case ["writes"]:
            return device.writes
        case ["reads"]:
            return device.reads
        case ["mute", state]:
            device.mute = state == "on"
            return True
        case other:
            return {"error": f"unknown command {other}"}


async def main():
    device = Device()
    registers = SimData(0, count=SIZE, values=0, datatype=DataType.REGISTERS)
    # id 0 answers for every unit.
    context = SimDevice(0, simdata=[registers], action=device.action)
    if sys.argv[1] == "tcp":
        server = ModbusTcpServer(context, address=("127.0.0.1", int(sys.argv[2])))
        await server.serve_forever(background=True)
        port = server.transport.sockets[0].getsockname()[1]
    else:
        server = ModbusSerialServer(context, framer=FramerType.RTU, port=sys.argv[2], baudrate=int(sys.argv[3]))
        await server.serve_forever(background=True)
        port = 0
    print(json.dumps({"port": port}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = obey(device, line.decode())
        except (ValueError, IndexError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await server.shutdown()


asyncio.run(main())
