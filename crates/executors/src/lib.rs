//! Where jobs run: one folder per executor behind one contract.
