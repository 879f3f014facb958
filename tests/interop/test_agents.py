"""Agents in rooms: a worker of `livekit-agents` and the dispatches of `livekit-api`, both unmodified; and our own
interviewer, sent by any client's token."""

import asyncio
import json
import pathlib
import uuid

import pytest
from livekit import api, rtc

from conftest import KEY, PATIENCE_S, ROOT, SECRET, Client, token
from media import Tone, hears

INTERVIEWER = "viva-interviewer"
# The framework pins an SDK older than the one that the other tests run: it has an environment of its own.
PYTHON = ROOT / ".venv-agents/bin/python"
WORKER = pathlib.Path(__file__).with_name("worker.py")
JobStatus = api.JobStatus


class Worker:
    """A worker's process, and what it says."""

    def __init__(self, process):
        self.process = process
        self.said = []
        self.task = asyncio.create_task(self.read())

    @classmethod
    async def start(cls, url, *arguments):
        pipe, log = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        command = [PYTHON, WORKER, "--url", url, *arguments]
        worker = cls(await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=log))
        await worker.until("registered")
        return worker

    async def read(self):
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                self.said.append(json.loads(line))

    async def until(self, event, **about):
        def matches(said):
            return said["event"] == event and all(said.get(key) == value for key, value in about.items())

        return await until(lambda: next(filter(matches, self.said), None), f"{event} of the worker", self.said)

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self.task.cancel()


async def until(found, what, seen=""):
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not (value := await found() if asyncio.iscoroutinefunction(found) else found()):
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come; seen: {seen}"
        await asyncio.sleep(0.05)
    return value


@pytest.fixture
async def start(server):
    """`await start("--name", "hum")` starts a worker."""
    workers = []

    async def begin(*arguments, url=server):
        worker = await Worker.start(url, *arguments)
        workers.append(worker)
        return worker

    yield begin
    for worker in workers:
        await worker.stop()


@pytest.fixture
async def service(server):
    async with api.LiveKitAPI(server.replace("ws", "http", 1), KEY, SECRET) as made:
        yield made


@pytest.fixture
async def enter(server):
    """`await enter("ada", room)` lets somebody into a room."""
    clients = []

    async def join(identity, room, url=server, **kwargs):
        clients.append(Client(url, room))
        return await clients[-1].connect(identity, **kwargs)

    yield join
    for client in clients:
        for source in client.sources:
            source.stop()
        await client.room.disconnect()


def new_room():
    return f"agents-{uuid.uuid4().hex[:8]}"


def sends(*agents, **config):
    """A room configuration that sends these agents, with their metadata."""
    dispatches = [api.RoomAgentDispatch(agent_name=name, metadata=metadata) for name, metadata in agents]
    return api.RoomConfiguration(agents=dispatches, **config)


async def hears_agent(client, hertz):
    """Waits for an agent's voice, and returns the agent."""
    track, _, agent = await client.event("track_subscribed", lambda t, _, p: p.kind == AGENT)
    assert await hears(track, hertz), f"the agent does not hum at {hertz} Hz"
    return agent


AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


async def states(service, room):
    """The status of each job of a room."""
    dispatches = await service.agent_dispatch.list_dispatch(room)
    return [JobStatus.Name(job.state.status) for d in dispatches for job in d.state.jobs]


async def test_an_agent_comes_by_the_token_that_makes_the_room_and_goes_with_the_room(service, start, enter):
    room = new_room()
    worker = await start("--name", "hum", "--hertz", "440")
    ada = await enter("ada", room, room_config=sends(("hum", "for the hum"), metadata="made by a token"))
    assert ada.room.metadata == "made by a token"
    agent = await hears_agent(ada, 440)
    assert agent.name == "The hum" and agent.identity.startswith("agent-AJ_")
    assert (agent.attributes["lk.agent.name"], agent.attributes["hums"]) == ("hum", "440")
    await ada.until(lambda: agent.attributes.get("lk.agent.state") == "speaking", "the agent's state")
    job = await worker.until("job", room=room)
    assert job["metadata"] == "for the hum" and agent.identity.endswith(job["id"])
    (dispatch,) = await service.agent_dispatch.list_dispatch(room)
    assert (dispatch.agent_name, dispatch.metadata, dispatch.room) == ("hum", "for the hum", room)
    (told,) = dispatch.state.jobs
    assert (told.id, told.state.participant_identity) == (job["id"], agent.identity)
    assert told.state.status == JobStatus.JS_RUNNING
    await service.room.delete_room(api.DeleteRoomRequest(room=room))
    await ada.event("disconnected")
    await worker.until("shutdown", id=job["id"])


async def test_a_dispatch_waits_for_its_worker_and_takes_its_agent_away(service, start, enter):
    room = new_room()
    ada = await enter("ada", room)
    made = await service.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(agent_name="later", room=room, metadata="m")
    )
    assert made.id.startswith("AD_") and await states(service, room) == ["JS_PENDING"]
    worker = await start("--name", "later", "--hertz", "660")
    agent = await hears_agent(ada, 660)
    found = await service.agent_dispatch.get_dispatch(made.id, room)
    assert found.state.jobs[0].state.status == JobStatus.JS_RUNNING
    await service.agent_dispatch.delete_dispatch(made.id, room)
    await ada.event("participant_disconnected", lambda p: p.identity == agent.identity)
    await worker.until("shutdown")
    assert await service.agent_dispatch.list_dispatch(room) == []
    with pytest.raises(api.TwirpError) as error:
        await service.agent_dispatch.delete_dispatch(made.id, room)
    assert error.value.code == "not_found"


async def test_a_worker_that_refuses_is_passed_over_and_unnamed_ones_come_by_themselves(own_server, start, enter):
    room, url = new_room(), own_server.url
    refuses, hums = await asyncio.gather(
        start("--hertz", "330", "--refuse", url=url), start("--hertz", "550", url=url)
    )
    ada = await enter("ada", room, url=url)
    await hears_agent(ada, 550)
    assert (await hums.until("request"))["metadata"] == ""
    # Whichever was asked first: the one that refuses is never in the room.
    assert not [said for said in refuses.said if said["event"] == "job"]


async def test_an_agent_comes_for_each_publisher(service, start, enter):
    room = new_room()
    worker = await start("--name", "shadow", "--type", "publisher", "--hertz", "770")
    await service.room.create_room(
        api.CreateRoomRequest(name=room, agents=[api.RoomAgentDispatch(agent_name="shadow")])
    )
    ada = await enter("ada", room)
    assert await states(service, room) == []
    await Tone(300).publish(ada)
    assert (await worker.until("job", room=room))["target"] == "ada"
    await hears_agent(ada, 770)


async def test_agents_do_not_keep_a_room_open(service, start, enter):
    room = new_room()
    worker = await start("--name", "lonely")
    config = sends(("lonely", ""), departure_timeout=1)
    ada = await enter("ada", room, room_config=config)
    job = await worker.until("job", room=room)
    await ada.room.disconnect()
    await worker.until("shutdown", id=job["id"])

    async def closed():
        return room not in [r.name for r in (await service.room.list_rooms(api.ListRoomsRequest())).rooms]

    await until(closed, "the end of the room")


async def test_the_interviewer_comes_by_a_clients_token_and_greets_once_it_may_listen(service, enter):
    room = new_room()
    metadata = json.dumps({"plan": "backend-engineer", "persona": "ada"})
    sam = await enter("sam", room, room_config=sends((INTERVIEWER, metadata)))
    interviewer = await sam.until(lambda: sam.room.remote_participants.get(INTERVIEWER), "the interviewer")
    assert interviewer.kind == AGENT and interviewer.attributes["lk.agent.name"] == INTERVIEWER
    # It does not say a word before the consent.
    await sam.until(lambda: interviewer.attributes.get("viva.waiting") == "consent", "the wish for consent")
    track, *_ = await sam.event("track_subscribed", lambda t, _, p: p.identity == INTERVIEWER)
    assert interviewer.attributes["lk.agent.state"] != "speaking"
    consent = json.dumps({"purpose": "ai_interviewer", "granted": True})
    await sam.me.perform_rpc(destination_identity=INTERVIEWER, method="viva.consent", payload=consent)
    await sam.until(lambda: interviewer.attributes.get("lk.agent.state") == "speaking", "the greeting")
    assert await loud(track), "the greeting makes no sound"
    assert await states(service, room) == ["JS_RUNNING"]
    (dispatch,) = await service.agent_dispatch.list_dispatch(room)
    await service.agent_dispatch.delete_dispatch(dispatch.id, room)
    await sam.event("participant_disconnected", lambda p: p.identity == INTERVIEWER)


async def test_what_the_interviewer_cannot_do_is_said_at_once(service, enter):
    room = new_room()

    async def refusal(metadata):
        with pytest.raises(api.TwirpError) as error:
            await service.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(agent_name=INTERVIEWER, room=room, metadata=metadata)
            )
        return error.value.code, error.value.message

    for metadata, words in [("", "send JSON"), ('{"plan": "nope"}', "nope"), ('{"plan": "x", "consent": 1}', "consent")]:
        code, message = await refusal(metadata)
        assert code == "invalid_argument" and words in message
    good = '{"plan": "product-manager"}'
    await service.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(agent_name=INTERVIEWER, room=room, metadata=good)
    )
    code, message = await refusal(good)
    assert code == "failed_precondition" and "already" in message
    with pytest.raises(api.TwirpError) as error:
        agents = [api.RoomAgentDispatch(agent_name=INTERVIEWER, metadata="{}")]
        await service.room.create_room(api.CreateRoomRequest(name=new_room(), agents=agents))
    assert error.value.code == "invalid_argument"
    # By a token nobody waits for the answer: it is in the list.
    room = new_room()
    await enter("ada", room, room_config=sends((INTERVIEWER, '{"plan": "nope"}')))

    async def failed():
        dispatches = await service.agent_dispatch.list_dispatch(room)
        return [job.state for d in dispatches for job in d.state.jobs if job.state.status == JobStatus.JS_FAILED]

    (state,) = await until(failed, "the failed job")
    assert "nope" in state.error


async def loud(track):
    """Whether something is heard on a track that is not silence."""
    stream = rtc.AudioStream(track, sample_rate=48_000, num_channels=1)
    count = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for event in stream:
                count += max((abs(s) for s in event.frame.data[::8]), default=0) > 600
                if count > 50:
                    return True
    except TimeoutError:
        return False
    finally:
        await stream.aclose()
