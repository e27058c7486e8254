import { Empty } from "../ui/States";
import { IconBox } from "@tabler/icons-react";
export default function A() { return <Empty icon={IconBox} title="x" />; }
