"""The RL algorithms of trials, one file each.

An algorithm is one class: a subclass of `base.Algorithm`, or of `off_policy.OffPolicyAlgorithm` if it learns from a replay
buffer. Its fields are the settings that a sweep file may set under `settings:`; its methods configure RLlib. A sweep file names
a class of your own as `algorithm: my_module:MyAlgorithm`, or by the name under which it was registered:

    register_algorithm("mine", MyAlgorithm)

No other file of the package contains the algorithms' names. These modules import RLlib and torch inside their methods only, so
that a sweep file is checked quickly.
"""
