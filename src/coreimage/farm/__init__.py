"""Build requests and who carries them out: the store, the queue, the executors.

In: a BuildRequest. Out: a Build with its log and artifacts in builds/<id>/.
"""
