"""Speed and memory beside diffusers, on the same weights and inputs. Run by ``make bench``."""
