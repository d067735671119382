#!/usr/bin/env python3
"""Small talkers for network tests, run inside a namespace.
  serve NAME PORT           TCP and UDP on PORT: answers "NAME size sha256" to what was sent
  ask tcp|udp ADDR PORT SIZE [COUNT]   sends SIZE random bytes COUNT times (each from a new socket), prints each name
  mirror PORT               TCP and UDP on PORT: answers with the caller's address and with as many bytes as it was sent
  look tcp|udp ADDR PORT SIZE [FROM-PORT]   sends SIZE bytes to a mirror, prints the address it says
  sctp_mirror PORT          answers each SCTP INIT with an INIT ACK whose cookie is the caller's address (packets by hand: a
                            kernel need not have SCTP)
  sctp_look ADDR PORT       an INIT to such a mirror, prints the address it says
  pound ADDR PORT STOP      HTTP requests, each by a new connection, until the file STOP is there; prints how many, and each failure
  flow ADDR PORT            one UDP socket for ever; prints each name that answers when it changes
  hold ADDR PORT            one TCP connection that says a byte now and then; prints how it ended
  dns udp|tcp NAME TYPE [SERVER]       prints the return code and the data of the answers, one line
  names NAME STOP           asks 127.0.0.11 for NAME without a pause, UDP and TCP in turn, each by a new socket, until the file STOP is
                            there; prints how many questions, and each failure
  nameserver ADDR           DNS on ADDR:53: outside.test, big.test (many addresses), NXDOMAIN for the rest
  send udp ADDR PORT HEX    one datagram
  advert LINK               an IPv6 router advertisement: "the way out is by me"
  replay PCAP ADDR          all that was recorded for ADDR (UDP payloads, beginnings of TCP streams) again, and with a bit flipped
  vxlan ADDR PORT VNI MAC FROM TO WORD   a plain VXLAN packet holding a UDP datagram
"""
import errno, hashlib, os, select, socket, struct, sys, time

LIMIT_S = 5


def recv_all(s, n):
    out = b""
    while len(out) < n:
        part = s.recv(n - len(out))
        if not part:
            raise EOFError("closed after %d of %d bytes" % (len(out), n))
        out += part
    return out


def receipt(name, data):
    return ("%s %d %s" % (name, len(data), hashlib.sha256(data).hexdigest())).encode()


def answer_all(port, answer):
    """By TCP (four bytes of size before the data) and UDP: answer(data, address of who asks)."""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t = socket.socket()
    t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    u.bind(("", int(port)))
    t.bind(("", int(port)))
    t.listen(64)
    print("ready", flush=True)
    while True:
        for s in select.select([u, t], [], [])[0]:
            if s is u:
                data, peer = u.recvfrom(65536)
                u.sendto(answer(data, peer[0]), peer)
                continue
            c, peer = t.accept()
            c.settimeout(LIMIT_S)
            try:
                size = struct.unpack("!I", recv_all(c, 4))[0]
                c.sendall(answer(recv_all(c, size), peer[0]))
            except (OSError, EOFError):
                pass
            c.close()


def serve(name, port):
    answer_all(port, lambda data, _: receipt(name, data))


def mirror(port):
    answer_all(port, lambda data, peer: peer.encode().ljust(16) + data[16:])


def ask(proto, addr, port, size, count="1"):
    for _ in range(int(count)):
        data = os.urandom(int(size))
        if proto == "udp":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(1)
            s.connect((addr, int(port)))
            for attempt in range(LIMIT_S):  # a datagram may be lost
                try:
                    s.send(data)
                    got = s.recv(65536)
                    break
                except socket.timeout:
                    if attempt == LIMIT_S - 1:
                        raise
        else:
            s = socket.create_connection((addr, int(port)), LIMIT_S)
            s.sendall(struct.pack("!I", len(data)) + data)
            got = b""
            while True:
                part = s.recv(65536)
                if not part:
                    break
                got += part
        s.close()
        name = got.decode().split(" ")[0]
        if got != receipt(name, data):
            sys.exit("the answer is not of what was sent: %r" % got)
        print(name, flush=True)


def look(proto, addr, port, size, own="0"):
    data = os.urandom(max(int(size), 16))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM)
    s.settimeout(LIMIT_S)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", int(own)))
    s.connect((addr, int(port)))
    if proto == "udp":
        s.send(data)
        try:
            got = s.recv(65536)
        except OSError as e:  # the first one told the path's MTU (RFC 1191)
            if e.errno != errno.EMSGSIZE:
                raise
            s.send(data)
            got = s.recv(65536)
    else:
        s.sendall(struct.pack("!I", len(data)) + data)
        got = recv_all(s, len(data))
    if got[16:] != data[16:]:
        sys.exit("something else came back")
    print(got[:16].decode().strip())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp_packet(source, to, tag, kind, own_tag, more=b""):
    """INIT (1) or INIT ACK (2) of RFC 9260; its sum is the one part with the least significant byte first."""
    more += bytes(-len(more) % 4)
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + len(more), own_tag, 65536, 1, 1, own_tag) + more
    head = struct.pack("!HHI", source, to, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def sctp_read(packet):
    """Of a whole packet: caller's address, source and destination port, kind, tag of who sent it, the rest; None: its sum is wrong."""
    p = packet[(packet[0] & 15) * 4:]
    if crc32c(p[:8] + bytes(4) + p[12:]) != struct.unpack("<I", p[8:12])[0]:
        return None
    return socket.inet_ntoa(packet[12:16]), *struct.unpack("!HH", p[:4]), p[12], struct.unpack("!I", p[16:20])[0], p[32:]


def sctp_mirror(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    print("ready", flush=True)
    while True:
        got = sctp_read(s.recv(65536))
        if not got or got[2:4] != (int(port), 1):
            continue
        caller, source, own, _, tag, _ = got
        cookie = caller.encode()
        more = struct.pack("!HH", 7, 4 + len(cookie)) + cookie
        s.sendto(sctp_packet(own, source, tag, 2, 7777, more), (caller, 0))


def sctp_look(addr, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    s.settimeout(LIMIT_S)
    s.connect((addr, 0))
    s.send(sctp_packet(40000 + os.getpid() % 9999, int(port), 0, 1, 4242))
    while True:
        got = sctp_read(s.recv(65536))
        if got and got[1] == int(port) and got[3] == 2:
            size = struct.unpack("!H", got[5][2:4])[0]
            print(got[5][4:size].decode())
            return


def pound(addr, port, stop):
    n = failed = 0
    print("ready", flush=True)
    while not os.path.exists(stop):
        s = socket.socket()
        s.settimeout(LIMIT_S)
        begin = time.time()
        try:
            s.connect((addr, int(port)))
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if not s.recv(65536).startswith(b"HTTP/1"):
                raise OSError("closed without an answer")
        except OSError as e:
            failed += 1
            print("%.3f after %.3f s: %s" % (begin, time.time() - begin, e), flush=True)
        s.close()
        n += 1
    print("asked", n, "failed", failed)


def flow(addr, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.2)
    s.connect((addr, int(port)))
    last = None
    while True:
        try:
            s.send(b"?")
            name = s.recv(65536).decode().split(" ")[0]
            time.sleep(0.05)
        except OSError:
            continue
        if name != last:
            print(name, flush=True)
        last = name


def hold(addr, port):
    s = socket.create_connection((addr, int(port)), LIMIT_S)
    s.sendall(struct.pack("!I", 1 << 30))
    print("connected", flush=True)
    try:
        while True:
            s.sendall(b"?")
            time.sleep(0.05)
    except OSError as e:
        print(e.__class__.__name__, flush=True)


TYPES = {"A": 1, "PTR": 12, "AAAA": 28}


def name_bytes(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"


def read_name(p, at):
    parts, end = [], None
    while p[at]:
        if p[at] & 0xC0 == 0xC0:
            end = end or at + 2
            at = struct.unpack("!H", p[at:at + 2])[0] & 0x3FFF
            continue
        parts.append(p[at + 1:at + 1 + p[at]].decode())
        at += 1 + p[at]
    return ".".join(parts), end or at + 1


def dns(proto, name, kind, server="127.0.0.11"):
    ident = os.urandom(2)
    q = ident + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + name_bytes(name) + struct.pack("!HH", TYPES[kind], 1)
    if proto == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(LIMIT_S)
        s.connect((server, 53))
        s.send(q)
        a = s.recv(65536)
    else:
        s = socket.create_connection((server, 53), LIMIT_S)
        s.sendall(struct.pack("!H", len(q)) + q)
        a = recv_all(s, struct.unpack("!H", recv_all(s, 2))[0])
    flags, _, n = struct.unpack("!HHH", a[2:8])
    if a[:2] != ident or not flags & 0x8000:
        sys.exit("not an answer to the question")
    at = read_name(a, 12)[1] + 4
    out = []
    for _ in range(n):
        at = read_name(a, at)[1]
        t, _, _, size = struct.unpack("!HHIH", a[at:at + 10])
        at += 10
        out.append(socket.inet_ntoa(a[at:at + 4]) if t == 1 else read_name(a, at)[0] if t == 12 else a[at:at + size].hex())
        at += size
    code = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}.get(flags & 15, str(flags & 15))
    print(" ".join([code] + (["cut"] if flags & 0x200 else []) + sorted(out)))


def question(q, tcp):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(LIMIT_S)
        s.connect(("127.0.0.11", 53))
        if tcp:
            s.sendall(struct.pack("!H", len(q)) + q)
            a = recv_all(s, struct.unpack("!H", recv_all(s, 2))[0])
        else:
            s.send(q)
            a = s.recv(4096)
    if a[3] & 15 or a[6:8] == b"\0\0":
        raise OSError("code %d, %d answers" % (a[3] & 15, a[7]))


def names(name, stop):
    q = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name_bytes(name) + struct.pack("!2H", 1, 1)
    n = failed = again = 0
    print("ready", flush=True)
    while not os.path.exists(stop):
        n += 1
        try:
            try:
                question(q, n % 2)
            except (TimeoutError, EOFError, ConnectionResetError):  # it was being read: asked once more, as libraries do
                again += 1
                question(q, n % 2)
        except (OSError, EOFError) as e:
            failed += 1
            print("failed: question %d by %s: %s" % (n, "TCP" if n % 2 else "UDP", e), flush=True)
        time.sleep(0.005)
    print("%d questions, %d asked twice, %d failed" % (n, again, failed))


def answer(q, limit):
    name, end = read_name(q, 12)
    addrs = {"outside.test": ["203.0.113.7"], "big.test": ["203.0.%d.%d" % (i // 250, i % 250) for i in range(400)]}.get(name)
    kind = struct.unpack("!H", q[end:end + 2])[0]
    records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(x) for x in addrs or [] if kind == 1]
    body, n, cut = b"", 0, 0
    for r in records:
        if 12 + end + 4 + len(body) + len(r) > limit:
            cut = 0x200
            break
        body += r
        n += 1
    return q[:2] + struct.pack("!HHHHH", 0x8180 | cut | (0 if addrs else 3), 1, n, 0, 0) + q[12:end + 4] + body


def nameserver(addr):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t = socket.socket()
    t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    u.bind((addr, 53))
    t.bind((addr, 53))
    t.listen(16)
    print("ready", flush=True)
    while True:
        for s in select.select([u, t], [], [])[0]:
            if s is u:
                q, peer = u.recvfrom(4096)
                u.sendto(answer(q, 512), peer)
                continue
            c, _ = t.accept()
            c.settimeout(LIMIT_S)
            try:
                a = answer(recv_all(c, struct.unpack("!H", recv_all(c, 2))[0]), 65535)
                c.sendall(struct.pack("!H", len(a)) + a)
            except (OSError, EOFError):
                pass
            c.close()


def send(_, addr, port, data):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes.fromhex(data), (addr, int(port)))


def advert(link):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((link, 0x86DD))
    mac = s.getsockname()[4]
    source, to = socket.inet_pton(socket.AF_INET6, "fe80::bad"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\1\1" + mac
    sum16 = sum(struct.unpack("!%dH" % ((36 + len(body)) // 2), source + to + struct.pack("!HH", len(body), 58) + body))
    while sum16 >> 16:
        sum16 = (sum16 & 0xFFFF) + (sum16 >> 16)
    body = body[:2] + struct.pack("!H", ~sum16 & 0xFFFF) + body[4:]
    s.send(bytes.fromhex("333300000001") + mac + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + to + body)


def recorded(pcap):
    """(protocol, source, destination, port, payload) of the IPv4 packets."""
    with open(pcap, "rb") as f:
        data = f.read()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(data):
        size = struct.unpack(order + "I", data[at + 8:at + 12])[0]
        p = data[at + 16:at + 16 + size]
        at += 16 + size
        if len(p) < 34 or p[12:14] != b"\x08\x00" or p[23] not in (6, 17):
            continue
        ip = 14 + (p[14] & 15) * 4
        end = 14 + struct.unpack("!H", p[16:18])[0]
        head = 8 if p[23] == 17 else (p[ip + 12] >> 4) * 4
        yield ("udp" if p[23] == 17 else "tcp", socket.inet_ntoa(p[26:30]) + ":%d" % struct.unpack("!H", p[ip:ip + 2]),
               socket.inet_ntoa(p[30:34]), struct.unpack("!H", p[ip + 2:ip + 4])[0], p[ip + head:end])


def flipped(data):
    b = bytearray(data)
    b[int.from_bytes(os.urandom(4), "big") % len(b)] ^= 1 << (os.urandom(1)[0] & 7)
    return bytes(b)


def replay(pcap, addr):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    streams, n = {}, 0
    for proto, source, to, port, data in recorded(pcap):
        if to != addr or not data:
            continue
        if proto == "tcp":
            if port == 2377:
                streams[source] = streams.get(source, b"") + data
            continue
        for d in (data, flipped(data), data[:len(data) // 2]):
            u.sendto(d, (addr, port))
            n += 1
    for data in list(streams.values())[:20]:
        for d in (data, flipped(data[:64]) + data[64:]):
            try:
                s = socket.create_connection((addr, 2377), LIMIT_S)
                s.sendall(d)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
            s.close()
            n += 1
    print(n)


def vxlan(addr, port, vni, mac, source, to, word):
    udp = struct.pack("!HHHH", 7000, 7000, 8 + len(word), 0) + word.encode()
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + socket.inet_aton(source) + socket.inet_aton(to)
    sum16 = sum(struct.unpack("!10H", ip))
    sum16 = (sum16 & 0xFFFF) + (sum16 >> 16)
    ip = ip[:10] + struct.pack("!H", ~(sum16 + (sum16 >> 16)) & 0xFFFF) + ip[12:]
    frame = bytes.fromhex(mac.replace(":", "")) + b"\x02\x42" + socket.inet_aton(source) + b"\x08\x00" + ip + udp
    head = struct.pack("!II", 0x08000000, int(vni) << 8)
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(head + frame, (addr, int(port)))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("serve", "ask", "mirror", "look", "sctp_mirror", "sctp_look", "pound", "flow", "hold", "dns", "names", "nameserver", "send", "advert", "replay", "vxlan"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](*sys.argv[2:])
