#!/usr/bin/env python3
"""A client of the gateway that knows nothing of it but its address, its CA and an identity.

It learns every service from reflection, builds the messages from the descriptors it got, and drives Record (live and
spooled), Play and Erase over mutual TLS. Needs grpcio, grpcio-reflection and protobuf; nothing of this repository.

usage: python_client.py HOST:PORT CA CERTIFICATE KEY TENANT
"""

import hashlib
import os
import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "quietus.v1"
SERVICES = ["RecordingService", "PlaybackService", "ErasureService", "TenantService"]


def connect(address, ca, certificate, key):
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
    channel = grpc.secure_channel(address, credentials)
    grpc.channel_ready_future(channel).result(timeout=30)
    return channel


class Service:
    """The methods of one service, built from its descriptor."""

    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(f"{PACKAGE}.{name}").methods:
            path = f"/{PACKAGE}.{name}/{method.name}"
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            kind = ("stream" if method.client_streaming else "unary") + (
                "_stream" if method.server_streaming else "_unary"
            )
            call = getattr(channel, kind)(
                path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
            )
            setattr(self, method.name, call)


def reason(error):
    """The reason in `google.rpc.ErrorInfo`."""
    for name, value in error.trailing_metadata():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    assert info.domain, "an ErrorInfo names its domain"
                    return info.reason
    return None


def main(address, ca, certificate, key, tenant):
    channel = connect(address, ca, certificate, key)
    database = ProtoReflectionDescriptorDatabase(channel)
    known = set(database.get_services())
    for name in [f"{PACKAGE}.{service}" for service in SERVICES] + ["grpc.health.v1.Health"]:
        assert name in known, f"reflection does not know {name}: {sorted(known)}"
    pool = descriptor_pool.DescriptorPool(database)
    recordings, playback, erasure, tenants = (Service(channel, pool, name) for name in SERVICES)

    def message(name, /, **fields):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def number(enum, value):
        return pool.FindEnumTypeByName(f"{PACKAGE}.{enum}").values_by_name[value].number

    home = number("Residency", "RESIDENCY_HOME_ONLY")
    tenants.CreateTenant(
        message("CreateTenantRequest", name=tenant, home="eu-west-2", residency=home, policy="dev")
    )

    def record(mode, audio, digest):
        def requests():
            facts = message("Facts", parties=["+441134960000"], call_id="python-1", labels={"desk": "7"})
            yield message(
                "RecordRequest",
                open=message(
                    "Open",
                    tenant=tenant,
                    subscriber="python-subscriber",
                    kind=number("Kind", "KIND_CALL"),
                    mode=number("Mode", mode),
                    media_type="audio/PCMU;rate=8000",
                    client_id=os.urandom(16),
                    start_ms=int(time.time() * 1000),
                    facts=facts,
                ),
            )
            for offset in range(0, len(audio), 60_000):
                content = audio[offset : offset + 60_000]
                yield message("RecordRequest", data=message("Data", offset=offset, content=content))
            yield message("RecordRequest", finish=message("Finish", length=len(audio), sha256=digest))

        events = list(recordings.Record(requests()))
        assert events[0].WhichOneof("event") == "opened", events[0]
        assert events[-1].WhichOneof("event") == "finished", events[-1]
        marks = [event.watermark for event in events if event.WhichOneof("event") == "watermark"]
        assert marks and marks[-1].stored == len(audio), marks
        assert events[-1].finished.length == len(audio) and not events[-1].finished.mismatch
        return events[0].opened.recording_id

    def play(**fields):
        answers = list(playback.Play(message("PlayRequest", **fields)))
        return answers[0].info, b"".join(answer.chunk.content for answer in answers[1:])

    def refused(call, wanted):
        try:
            call()
        except grpc.RpcError as error:
            assert reason(error) == wanted, (reason(error), error)
            return error.code()
        raise AssertionError(f"was not refused: {wanted}")

    audio = os.urandom(9_000_000)
    for mode in ["MODE_SPOOLED", "MODE_LIVE"]:
        refusal = grpc.StatusCode.ABORTED
        if mode == "MODE_SPOOLED":
            assert refused(lambda: record(mode, audio[:1000], hashlib.sha256(b"other").digest()), "MISMATCH") == refusal
        one = record(mode, audio, hashlib.sha256(audio).digest())
        info, heard = play(id=one)
        assert heard == audio and info.media_type == "audio/PCMU;rate=8000" and info.complete
        info, heard = play(id=one, bytes=message("ByteRange", start=8_388_600, end=8_388_620))
        assert heard == audio[8_388_600:8_388_620] and info.start == 8_388_600
        info, heard = play(id=one, time=message("TimeRange", from_seconds=1.5, to_seconds=2))
        assert heard == audio[12_000:16_000]
        shown = recordings.Get(message("GetRecordingRequest", id=one))
        assert shown.subscriber == "python-subscriber" and shown.facts.stated.labels["desk"] == "7"
        assert shown.facts.duration_seconds == 1125.0

        done = erasure.Erase(message("EraseRequest", recording=message("EraseRecording", id=one)))
        assert done.outcome == number("Outcome", "OUTCOME_ERASED") and done.generation_to > done.generation_from
        assert refused(lambda: play(id=one), "ERASED") == grpc.StatusCode.FAILED_PRECONDITION
        again = erasure.Erase(message("EraseRequest", recording=message("EraseRecording", id=one)))
        assert again.outcome == number("Outcome", "OUTCOME_ALREADY_ERASED")

    kept = record("MODE_SPOOLED", audio[:5000], b"")
    who = message("EraseSubscriber", tenant=tenant, subscriber="python-subscriber")
    erasure.Erase(message("EraseRequest", subscriber=who))
    assert refused(lambda: play(id=kept), "ERASED") == grpc.StatusCode.FAILED_PRECONDITION
    assert refused(lambda: play(id="0" * 52), "UNKNOWN") == grpc.StatusCode.NOT_FOUND
    erasure.Erase(message("EraseRequest", tenant=message("EraseTenant", tenant=tenant, confirm=tenant)))
    print("all of it went well")


if __name__ == "__main__":
    main(*sys.argv[1:])
