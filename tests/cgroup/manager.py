"""A manager of scopes as systemd's, as far as casemate speaks with it: sys.argv is its socket, the cgroup
that it has, how many seconds a job takes, and what it does not know (a word of the first call, which it
refuses with an error of this name)."""
import os, socket, struct, sys, threading, time

path, group, pause, refused = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
refusals = [refused] if refused != '-' else []


def field(code, kind, value):
    text = struct.pack('<B', code) + bytes([len(kind)]) + kind + b'\0'
    if kind == b'u':
        return text + struct.pack('<I', value)
    if kind == b'g':
        return text + bytes([len(value)]) + value + b'\0'
    return text + struct.pack('<I', len(value)) + value + b'\0'


def message(kind, fields, body=b''):
    array = b''
    for one in fields:
        array += b'\0' * (-len(array) % 8) + one
    head = struct.pack('<cBBBIII', b'l', kind, 0, 1, len(body), 1, len(array)) + array
    return head + b'\0' * (-len(head) % 8) + body


def string(body, text):
    body += b'\0' * (-len(body) % 4)
    return body + struct.pack('<I', len(text)) + text + b'\0'


def answer(connection, call, fds):
    serial, = struct.unpack_from('<I', call, 8)
    fields, = struct.unpack_from('<I', call, 12)
    body = call[(16 + fields + 7) // 8 * 8:]
    length, = struct.unpack_from('<I', body)
    unit = body[4:4 + length]
    if refusals:
        name = refusals.pop().encode()
        connection.sendall(message(3, [field(4, b's', name), field(5, b'u', serial)]))
        return
    pids = []
    for fd in fds:
        lines = open('/proc/self/fdinfo/%d' % fd).read().splitlines()
        pids += [line.split()[1] for line in lines if line.startswith('Pid:')]
        os.close(fd)
    if not fds:
        at = body.index(b'PIDs\0\x02au\0')
        at = (at + 9 + 3) // 4 * 4
        size, = struct.unpack_from('<I', body, at)
        pids = struct.unpack_from('<%dI' % (size // 4), body, at + 4)
    job = b'/job/' + unit.replace(b'-', b'_').replace(b'.', b'_')
    reply = [field(5, b'u', serial), field(8, b'g', b'o')]
    connection.sendall(message(2, reply, string(b'', job)))
    time.sleep(pause)
    scope = os.path.join(group, 'casemate.slice', unit.decode())
    os.makedirs(scope)
    try:
        for pid in pids:
            open(scope + '/cgroup.procs', 'w').write(str(pid))
        result = b'done'
    except OSError:
        result = b'failed'
    signal = [
        field(1, b'o', b'/org/freedesktop/systemd1'),
        field(2, b's', b'org.freedesktop.systemd1.Manager'),
        field(3, b's', b'JobRemoved'),
        field(8, b'g', b'uoss'),
    ]
    removed = struct.pack('<I', 1)
    for text in (job, unit, result):
        removed = string(removed, text)
    connection.sendall(message(4, signal, removed))
    while 'populated 1' in open(scope + '/cgroup.events').read():
        time.sleep(0.02)
    for below in ('/payload', '/supervisor', ''):
        try:
            os.rmdir(scope + below)
        except OSError:
            pass


def serve(connection):
    greeting = b''
    while not greeting.endswith(b'BEGIN\r\n'):
        greeting += connection.recv(4096)
    connection.sendall(b'OK 1234\r\nAGREE_UNIX_FD\r\n')
    data, fds = b'', []
    while True:
        while len(data) < 16 or len(data) < length(data):
            more, got, _, _ = socket.recv_fds(connection, 65536, 16)
            if not more:
                return
            data, fds = data + more, fds + got
        end = length(data)
        call, data = data[:end], data[end:]
        given, fds = fds, []
        answer(connection, call, given)


def length(data):
    body, = struct.unpack_from('<I', data, 4)
    fields, = struct.unpack_from('<I', data, 12)
    return (16 + fields + 7) // 8 * 8 + body


own = os.path.join(group, 'init.scope')
os.makedirs(own, exist_ok=True)
open(own + '/cgroup.procs', 'w').write(str(os.getpid()))
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(512)
print('ready', flush=True)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
