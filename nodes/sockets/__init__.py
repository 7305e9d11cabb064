"""What travels on the wires, a file a socket: how a value of ours looks to ComfyUI, how a value of ours or core's is
checked, and what of the library it becomes."""
