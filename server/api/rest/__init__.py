"""What REST callers see of the service, behind the gateway: which requests are let in, and errors.

The gateway translates between JSON and protobuf; here is only what it cannot know.
"""
