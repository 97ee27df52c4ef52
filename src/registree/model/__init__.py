"""Values and decisions, pure: nothing here touches a disk, a network or a clock."""
