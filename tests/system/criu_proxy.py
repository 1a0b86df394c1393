#!/usr/bin/python3
"""CRIU with somebody in between: hands on what chrek and the real CRIU say to each other.

$PROXY_CRIU is the real program; $PROXY says when to do what, as MESSAGE=ACTION: once CRIU has said
a message with that text (and chrek has answered) the proxy kills CRIU and ends ("kill"), or hands
on no more until chrek ends ("hang", and makes a file beside this one, its name and ".met"), or hands the message on later ("late"); or CRIU is killed before chrek gets it ("die").  That the real one knows CHREK_HIDDEN_FD is looked for in this file.
"""

import array
import os
import select
import socket
import subprocess
import sys
import time

SIZE = 1 << 20


def hand_on(source, to, between=lambda data: None):
    """One message with its descriptors; None at the end."""
    data, extra, _, _ = source.recvmsg(SIZE, socket.CMSG_SPACE(4))
    between(data)
    fds = array.array("i")
    for _, _, content in extra:
        fds.frombytes(content)
    if data:
        to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
    for fd in fds:
        os.close(fd)
    return data or None


def main():
    text, action = os.environ["PROXY"].split("=")
    chrek = socket.socket(fileno=int(sys.argv[-1]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.set_inheritable(True)
    criu = subprocess.Popen([os.environ["PROXY_CRIU"], *sys.argv[1:-1], str(theirs.fileno())],
                            close_fds=False)
    theirs.close()
    met = False

    def before(data):
        if action == "die" and text.encode() in data:
            criu.kill()
            criu.wait()
        if action == "late" and text.encode() in data:
            time.sleep(3)

    while True:
        ready, _, _ = select.select([chrek, ours], [], [])
        for source, to in ((ours, chrek), (chrek, ours)):
            if source not in ready:
                continue
            if met and source is chrek and action == "kill":
                criu.kill()
                return
            data = hand_on(source, to, before)
            if data is None:
                criu.kill()
                return
            met = met or (source is ours and text.encode() in data)
            while met and action == "hang":
                answer = chrek.recv(SIZE)
                if not answer:
                    criu.kill()
                    return
                open(__file__ + ".met", "wb").close()


main()
