"""One verb, one function: a workspace and values in, a frozen result out. No text, no prompt, no printing."""
