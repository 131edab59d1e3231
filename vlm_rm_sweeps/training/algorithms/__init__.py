"""The RL algorithms that trials can use: one file each.

An algorithm is one class, a subclass of `base.Algorithm` (or of `off_policy.OffPolicyAlgorithm`, if it learns from a replay
buffer). Its fields are the settings that a sweep file may name under `settings:`; its methods say how RLlib is configured. A
class of your own is named in the sweep file as `algorithm: my_module:MyAlgorithm`, or registered:

    register_algorithm("mine", MyAlgorithm)

No other file of the package knows the algorithms' names. Nothing in these modules imports RLlib or torch before a trial starts,
so that checking a sweep file stays fast: import both inside the methods.
"""
