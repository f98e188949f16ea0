def draw_curves(*a):
    pass


def draw_poses(*a):
    pass
